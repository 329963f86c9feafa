class Car < Vehicle
  self.ignored_columns += ["trunk"]
end
