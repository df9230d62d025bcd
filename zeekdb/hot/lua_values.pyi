from zeekdb.hot.replies import Error

class CountedError(Error):
    """An error that a command has raised inside the script: it is counted already."""
