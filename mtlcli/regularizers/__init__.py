"""Terms added to the objective: penalties on weights, auxiliary losses on what the trunk computes."""
