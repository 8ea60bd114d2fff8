"""The command line. A leaf: nothing else in the package imports it."""

import atexit
import gc

# Nearly everything that a command imports stays, and looking for garbage in it took a tenth of a short command's time.
gc.set_threshold(20_000, 10, 10)
atexit.register(gc.freeze)  # otherwise Python looks once more at exit: for a second, if PyTorch was imported
