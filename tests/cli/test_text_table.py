"""Tables of text: aligned by columns of the screen, with escapes for characters that would change it."""

import pytest

from hangtag.cli.text_table import TextTable


def test_columns_are_aligned_also_under_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    table = TextTable("class", ">images")
    table.add_row("\ud2f0\uc154\uce20", "7")  # three characters that take two columns each
    table.add_row("bag\x1b[31m", "1,000")
    table.add_section()
    table.add_row("total", "1,007")
    table.show()

    assert capsys.readouterr().out.splitlines() == [
        "",
        " class         images",
        " " + "\u2500" * 20,
        " \ud2f0\uc154\uce20             7",
        " bag\\x1b[31m    1,000",
        "",
        " total          1,007",
        "",
    ]
    assert table.width == 22
