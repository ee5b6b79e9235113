"""One module for each table, which computes and shows it; it registers itself by `@table`."""
