"""Take-away: published versions as files that other tools open."""
