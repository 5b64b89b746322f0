-- depends: 0004_in_and_out

-- When a run that stopped early may go on by itself; null when only a person's deed or the schedule helps.
ALTER TABLE run ADD COLUMN resume_after timestamptz;
