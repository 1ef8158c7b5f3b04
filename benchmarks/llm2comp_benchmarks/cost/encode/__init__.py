"""`llm2comp bench encode`: encoding beside sentence-transformers, transformers, engines and llm2vec.

All systems encode the same texts with the same weights; OpenVINO, ONNX Runtime and llama.cpp are engines. llm2vec
takes a random Llama in its own environment.
Imports the modules of `cost`, `results` and the core.
"""
