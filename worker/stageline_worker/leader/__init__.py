"""What stage 0 does beside its layers: admit work, schedule it, and answer the routers."""
