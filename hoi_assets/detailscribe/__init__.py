"""DetailScribe (arXiv 2504.08714) as a library: no Dagster, and nothing of the other pipeline.

| asset | module |
| --- | --- |
| `interacting_prompts` | `benchmark` (official files: `benchmark_download`) |
| `interaction_decompositions` | `decompose`, by one of `decomposers` |
| `initial_images` | `initial_images` |
| `image_critiques` | `initial_images`, by one of `critics` |
| `refined_images` | `refined_images`, `craft_rounds` |
| `baseline_images` | `baseline_images`, one module per method in `baselines` |
"""
