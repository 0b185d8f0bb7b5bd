"""The table of contents: numbers are fixed, so that nothing is ever renumbered."""

NOTEBOOKS = {
    "00": "Start here",
    "01": "Tokens",
    "02": "Data",
    "03": "What is a good loss?",
    "04": "Attention",
    "05": "Positions",
    "06": "Assembly",
    "07": "Initialisation and tying",
    "08": "One step",
    "09": "Bigger than memory",
    "10": "The same numbers twice",
    "11": "Sampling",
    "12": "GPT-2 itself",
    "13": "Long context",
    "14": "Tuning",
    "15": "Bug clinic",
    "16": "Full training",
}
