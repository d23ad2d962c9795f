"""`python -m sn6.statistics`: replaced by `python -m sn6.check`."""

from sn6.errors import UserError, one_line_errors


def main() -> None:
    """Refer to the command that includes this one."""
    with one_line_errors():
        message = "sn6.statistics is now part of sn6.check: run python -m sn6.check root=DIR"
        raise UserError(message, kind="unknown_value", value="sn6.statistics")


if __name__ == "__main__":
    main()
