"""`python -m llm2comp` is the command `llm2comp`; so `torchrun -m llm2comp train …` trains on several devices."""

from llm2comp.cli import main

if __name__ == "__main__":
    main()
