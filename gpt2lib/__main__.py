"""`python -m gpt2lib` and `accelerate launch -m gpt2lib`: the same as `gpt2lib`."""

from gpt2lib.cli import entry_point

if __name__ == "__main__":
    entry_point()
