"""The generator in the foreground, where guides of such subnets look for it: the same as ``gascli g serve``."""

import sys

from gas.cli.main import main

if __name__ == "__main__":
    main(["generator", "serve", *sys.argv[1:]])
