"""A guest book: one small Django site, as many companies still have one."""
