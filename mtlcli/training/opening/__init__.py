"""What a checkpoint's file goes through before anything in it is used: seal, archive, pickle, plain data."""
