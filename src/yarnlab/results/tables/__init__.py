"""One module for each table, or family of tables, which computes and shows it; it registers itself by `@table`."""
