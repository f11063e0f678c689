-- A file of SQLite has one process, so there are no tables of replicas; PostgreSQL has them under this number.
SELECT 1;
