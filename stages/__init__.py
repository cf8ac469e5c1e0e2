"""The pipeline's stages: one module for each stage in dvc.yaml, named after it."""
