"""The documentation site: the pages of the checkout and those that the code gives, built by Zensical into HTML."""
