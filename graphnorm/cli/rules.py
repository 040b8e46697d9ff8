"""``graphnorm rules``: the operator table, and what is known about one operator."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from graphnorm.cli.commands import JsonOption, app

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from graphnorm.cli.operator_table import Entry, Row

_MOST = 12  # overloads that are listed


@app.command()
def rules(
    operator: Annotated[
        str | None,
        typer.Argument(metavar="[OP]", help="One operator, by its ONNX or ATen name, with all about it."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as in the README.")] = False,
    matrix: Annotated[
        bool,
        typer.Option("--matrix", help="Print which analyses have a rule, and why others have none."),
    ] = False,
    json_path: JsonOption = None,
) -> None:
    """Show what each operator lets pass: the scales of its operands, parameters and results."""
    from graphnorm.cli import display
    from graphnorm.cli.files import write_json
    from graphnorm.cli.operator_table import entries, rows
    from graphnorm.cli.operator_table import markdown as as_markdown
    from graphnorm.cli.outputs import check_outputs, json_output

    check_outputs([json_output(json_path)], [])
    out = display.console(json_path)
    if matrix:
        from graphnorm.cli import matrix as of_analyses

        lines = of_analyses.matrix(operator)
        missing = of_analyses.empty(lines)
        write_json({"operators": [line.to_dict() for line in lines], "empty": missing}, json_path)
        if operator is None:
            out.print(of_analyses.matrix_table(lines))
        else:
            for text in of_analyses.cell_lines(lines[0]):
                out.print(text, soft_wrap=True)
    elif operator is not None:
        found = entries(operator)
        write_json({"operators": [entry.to_dict() for entry in found]}, json_path)
        for entry in found:
            for line in entry_lines(entry):
                out.print(line, soft_wrap=True)
    else:
        write_json({"rows": [asdict(row) for row in rows()]}, json_path)
        if markdown:
            typer.echo(as_markdown(), err=json_path == "-")
        else:
            out.print(rule_table(rows()))


def rule_table(table: Sequence[Row]) -> Table:
    """The operator table; a family is named once."""
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title="operators", title_justify="left")
    for heading in ("family", "operators", "operands -> result"):
        drawn.add_column(heading, overflow="fold")
    before = ""
    for row in table:
        said = f"fixed: {row.reason}" if row.reason else escape(row.signature)
        drawn.add_row("" if row.family == before else row.family, ", ".join(row.operators), said)
        before = row.family
    drawn.caption = "x, y, u: log-scales; letters in contractions index axes; 0: pinned"
    return drawn


def entry_lines(entry: Entry) -> Iterator[str]:
    """All about one operator, in rich's markup."""
    from rich.markup import escape

    yield f"[bold]{escape(entry.operator)}[/bold]  ({entry.family})"
    if entry.fixed:
        yield f"  fixed: {escape(entry.reason)}. Everything that it touches is pinned."
    else:
        yield f"  operands -> result: {escape(entry.signature)}"
        yield f"  in explanations: {escape(entry.reason)}"
    if entry.like:
        yield f"  the same rule: {escape(_few(entry.like))}"
    if entry.overloads:
        yield f"  in PyTorch: {escape(_few(entry.overloads))}"
    if entry.documentation and not entry.fixed:
        yield ""
        yield from (f"  {escape(line)}" if line else "" for line in entry.documentation.splitlines())


def _few(items: Sequence[str]) -> str:
    more = f" + {len(items) - _MOST} more" if len(items) > _MOST else ""
    return ", ".join(items[:_MOST]) + more
