"""What all tests start from."""

import signal

# Whoever runs the tests under nohup does not mean the programs that they start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
