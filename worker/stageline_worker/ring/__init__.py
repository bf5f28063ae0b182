"""The ring: sessions, deadlines and the thread that takes microbatches round."""
