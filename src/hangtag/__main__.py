"""`python -m hangtag`: the command line, without importing anything from the current folder.

`python -m` puts the current folder first on the import path, so a `json.py` next to the user's images would run.
"""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] in ([os.getcwd()], [""]):  # noqa: PTH109 - pathlib is not loaded yet
        del sys.path[0]

    from hangtag.cli.main import main

    main()
