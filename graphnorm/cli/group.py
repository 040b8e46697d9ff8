"""From exceptions to exit codes and one clear line."""

from __future__ import annotations

import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from graphnorm.errors import GraphNormError, NotEquivalentError
from graphnorm.util.printable import printable, shortened

NOT_EQUIVALENT, BAD_INPUT, DEFECT = 1, 2, 3
KILLED = 128  # plus the signal's number, as in shells
INTERRUPTED, CLOSED_PIPE = KILLED + 2, KILLED + 13


class ReportingGroup(TyperGroup):
    """Commands whose errors end as ``error: …`` on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except NotEquivalentError as error:
            raise fail(error, NOT_EQUIVALENT) from error
        except KeyboardInterrupt as error:
            raise fail("interrupted", INTERRUPTED) from error
        except BrokenPipeError:
            raise  # the output pipe is closed
        except (GraphNormError, MemoryError, OSError) as error:
            raise fail(error, BAD_INPUT) from error
        except Exception as error:
            if type(error).__module__.startswith(("click", "typer")):
                raise  # typer's own exits and usage errors
            typer.echo(
                printable(traceback.format_exc()), err=True, nl=False
            )  # Python's own exit code would be 1, which says "not equivalent"
            raise fail(
                "this is a defect of graphnorm; please report it with the lines above", DEFECT
            ) from error


def fail(message: object, code: int) -> typer.Exit:
    """Print one error; the exception to raise."""
    typer.echo(f"error: {shortened(printable(str(message)))}", err=True)
    return typer.Exit(code)
