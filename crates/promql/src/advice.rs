//! Queries that are right and say nothing.
