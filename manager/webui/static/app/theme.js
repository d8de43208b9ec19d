// Sets the chosen theme before anything is drawn; without a choice the style sheet follows the system.
try {
  const theme = localStorage.getItem("stowage-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing follows the system.
}
