"""What a training will do, decided and checked before anything is written or started."""
