"""The filesystem in its own words, testable without a mount: joins the tree with content, journal and providers."""
