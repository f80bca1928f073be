"""Pure modules, by tables and properties, on a Clock."""
