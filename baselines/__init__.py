"""What every method is held against: recipes, published figures, predictors that need no training."""
