"""HPSv3 (Ma et al. 2025, arXiv 2508.03789): how much people would prefer a picture of a prompt.

Qwen2-VL with a small head that reads its hidden state at one token, `<|Reward|>`. Compared with
the published package in `hoi_assets_tests/engines/test_hpsv3.py`.
"""
