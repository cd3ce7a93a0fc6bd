"""What people look at: tables, curves and pictures of trainings and evaluations."""
