"""What running on each option costs a month, from one data file of prices, with its arithmetic."""
