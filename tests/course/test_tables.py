"""Rows as a table."""

from gpt2lib.course import table

ROWS = [{"trial": "a<b", "lr": "0.0010", "n": 2000}, {"trial": "longer", "lr": 3e-3, "n": None}]


def test_a_table_in_text():
    assert repr(table(ROWS, ["trial", "lr", "n"])).splitlines() == [
        " trial     lr     n",
        "   a<b  0.001  2000",
        "longer  0.003  None",
    ]


def test_a_table_in_html():
    shown = table(ROWS, ["lr", "trial"])._repr_html_()
    assert shown == (
        "<table><thead><tr><th>lr</th><th>trial</th></tr></thead><tbody>"
        "<tr><td>0.001</td><td>a&lt;b</td></tr><tr><td>0.003</td><td>longer</td></tr>"
        "</tbody></table>"
    )
