"""What accounts hold and what is judged about them: values and exact arithmetic, stdlib only."""
