"""The body of a request -> pictures: a raw body, a form with files, or JSON with base64."""

import binascii
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request

from hangtag.errors import HangtagError, PictureError
from hangtag.serving.body import read_body
from hangtag.serving.refusals import Refusal
from hangtag.serving.settings import Settings
from hangtag.words import amount, visible

__all__ = ["Posted", "read_posted"]

_RAW = ("", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded")  # curl's default
_MOST_FIELDS = 100
_MOST_FIELD = 10_000  # bytes of a field of a form that is no file
_MOST_NAME = 255  # characters
_AS_FILES = "send pictures as files, with file names: curl -F image=@photo.jpg"
_HOW = "send a picture as the body, files in a form, or JSON with a picture in base64"


@dataclass
class Posted:
    """The pictures of a request.

    Attributes:
        pictures: each as the bytes of a file, or why there are none.
        names: of the files, as the client calls them; None: they have no names.
        is_list: whether the client sent a list, and expects one.
        fields: parameters in the body.
    """

    pictures: list[bytes | HangtagError]
    names: list[str] | None = None
    is_list: bool = False
    fields: list[tuple[str, object]] = field(default_factory=list)


async def read_posted(request: Request, settings: Settings) -> Posted:
    """The pictures of a request; raises Refusal: not in a known form (400, 415, 422), or too many (413)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request)
    if kind in _RAW or kind.startswith("image/"):
        posted = Posted([body])
    elif kind == "multipart/form-data":
        posted = await _from_form(request, body, settings.max_pictures)
    elif kind == "application/json" or kind.endswith("+json"):
        posted = _from_json(body, settings.max_pictures)
    else:
        raise Refusal(415, f"the content type must be an image, a form or JSON, got {visible(kind[:60])}", _HOW)
    if not body or not posted.pictures:
        raise Refusal(422, "the request contains no picture", _HOW if posted.names is None else _AS_FILES)
    if len(posted.pictures) > settings.max_pictures:
        raise _too_many(settings.max_pictures)
    return posted


def _too_many(most: int) -> Refusal:
    return Refusal(413, f"a request may hold at most {amount(most, 'picture')}", "send several requests")


async def _from_form(request: Request, body: bytes, most: int) -> Posted:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import parse_options_header
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8", b"us-ascii"):  # the parser would take any codec of Python
        raise Refusal(415, f"the charset of a form must be UTF-8, got {visible(charset[:60].decode('latin-1'))}", _HOW)

    class InMemory(MultiPartParser):
        spool_max_size = len(body) + 1  # nothing of a client's is written to disk
        is_whole = False

        def on_end(self) -> None:
            self.is_whole = True

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body
        if not parser.is_whole:  # raised in the parser, which then closes its files
            raise MultiPartException("it is truncated: its last boundary is missing")

    try:
        parser = InMemory(request.headers, whole(), max_files=most, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD)
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:  # an older starlette lets the parser's own through
        message = str(error)
        if "Too many files" in message:
            raise _too_many(most) from None
        if "maximum size" in message:
            raise Refusal(413, f"a field that is no file may have at most {_MOST_FIELD:,} bytes", _AS_FILES) from None
        raise Refusal(400, "the form cannot be read", message) from None
    names: list[str] = []
    posted = Posted([], names, is_list=True)
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            posted.fields.append((name, value))
        elif value.filename or value.size:  # a form's file field that was left empty has neither
            posted.pictures.append(value.file.read())
            names.append(_cleaned(value.filename or name))
    await form.close()
    return posted


def _cleaned(name: str) -> str:
    """The last part of a path that a client sent as the name of a file."""
    return visible(name.replace("\\", "/").rstrip("/").rpartition("/")[2])[:_MOST_NAME]


def _from_json(body: bytes, most: int) -> Posted:
    if body.count(b",") > 2 * most + _MOST_FIELDS:  # one after each picture, and one in a data URI
        raise _too_many(most)
    how = 'send {"image": "BASE64"} or {"images": ["BASE64", ...]}'
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "the body is not valid JSON", f"line {error.lineno}, column {error.colno}") from None
    if not isinstance(content, dict) or ("image" in content) == ("images" in content):
        raise Refusal(422, "the JSON must be an object with either image or images", how)
    given = content.pop("images", None)
    is_list = given is not None
    given = given if is_list else [content.pop("image", None)]
    if not isinstance(given, list):
        raise Refusal(422, "images must be a list", how)
    if not all(isinstance(each, str) for each in given):
        raise Refusal(422, f"{'images must be base64 strings' if is_list else 'image must be a base64 string'}", how)
    return Posted([_decoded(each) for each in given], is_list=is_list, fields=list(content.items()))


def _decoded(text: str) -> bytes | HangtagError:
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            return PictureError("the data URI is not base64", "write data:image/png;base64,...", "not an image")
    try:
        return binascii.a2b_base64(text.encode("ascii").translate(None, b" \t\r\n"), strict_mode=True)
    except ValueError:  # also of characters beyond ASCII
        return PictureError(
            "the string is not base64", "send the bytes of a picture in base64, with + and / and not with - and _; "
            "addresses and paths are not read", "not an image",
        )  # fmt: skip
