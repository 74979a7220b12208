"""The command line, `hoi`: one module per group of commands, and the libraries behind them."""
