"""Arguments that the budgets of several experiments share."""

GPU = ("--config=configs/trainer/gpu.yaml",)
FEW_BATCHES = (
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=1",
    "--trainer.log_every_n_steps=1",
)
FEW_SCORES = (
    '--trainer.callbacks=[{"class_path": "SampleGrid"}, {"class_path": "GenerationScores", '
    '"init_args": {"extractor": "digits", "count": 50, "test_count": 50, "real_count": 50}}]'
)
DIGITS_SMOKE = ("--data=Digits", *FEW_BATCHES)
GAN_SMOKE = (*DIGITS_SMOKE, "--model.feature_maps=4", FEW_SCORES)
