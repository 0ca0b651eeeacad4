"""The rules, one module per topic; importing this package registers all of them."""
