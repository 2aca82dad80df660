"""Local writes until the store has them: drafts on disk, and the records that find them again after a crash."""
