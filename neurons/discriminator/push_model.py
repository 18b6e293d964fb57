"""Push detectors to an arena: the same as ``gascli discriminator push``, for guides that call this script.

python neurons/discriminator/push_model.py --image-model detector.zip --wallet-name alice --netuid 34
"""

from gas.cli.main import main

if __name__ == "__main__":
    import sys

    main(["discriminator", "push", *sys.argv[1:]])
