"""What a policy is compared with: `model` is the frozen reference and what it says of a row, `identity` and `store`
keep that on disk for later runs, `trainer` is the base of the stages that compare.
"""
