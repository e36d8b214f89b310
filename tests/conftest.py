"""What holds for all tests."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start jobs in the background with SIGINT ignored, and processes inherit that; tests of Ctrl-C need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
