"""What tests are built from: projects, models, clips, servers and predictions, each made in one place."""
