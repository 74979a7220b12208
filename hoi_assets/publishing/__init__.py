"""Write-audit-publish: what happens around an asset's function."""
