"""Groups and owners, as the UI shows them."""

PPV = "prompt_propose_verify"
DETAILSCRIBE = "detailscribe"
EVALUATION = "evaluation"
OWNERS = ["team:hoi-assets"]
