"""Run the command line as `python -m nextword`."""

from nextword.cli.start import start

if __name__ == "__main__":
    start()
