"""Query/passage pairs derived from raw text by rules, as training data of stage 3.

Imports `llm2comp.corpus` and nothing of the other training modules.
"""
