// The admin pages: a sign-in link fills its form, pages with live data refresh or say that they are not current,
// and the browser asks before it drops entries that are not saved.

// The token is behind '#', so that no server, log or other site sees it.
const tokenField = document.getElementById("token");
function fill() {
  if (!tokenField || location.hash.length < 2) return;
  tokenField.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
fill();
addEventListener("hashchange", fill); // the link was opened on a page that shows the form already

const REFRESH_MS = 10_000;
const QUICK_MS = 2_000;

const old = document.createElement("p");
old.className = "wrong";
old.setAttribute("role", "status");
old.textContent = "Not current: the server or its data base does not answer, or you are signed out. This page tries again automatically.";

async function refresh() {
  const part = document.querySelector("[data-live]");
  if (!part) return;
  try {
    if (!document.hidden && !part.contains(document.activeElement)) {
      const answer = await fetch(location.href, { redirect: "error" });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      old.remove();
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-live]");
      if (fresh && fresh.innerHTML !== part.innerHTML) part.replaceWith(fresh);
    }
  } catch {
    part.before(old); // the old data stay on the page
  }
  const now = document.querySelector("[data-live]");
  setTimeout(refresh, now.hasAttribute("data-quick") ? QUICK_MS : REFRESH_MS);
}
const first = document.querySelector("[data-live]");
if (first) setTimeout(refresh, first.hasAttribute("data-quick") ? QUICK_MS : REFRESH_MS);

const editing = document.querySelector("form.editing");
let entered = Boolean(document.querySelector("form.editing .error")); // refused entries are not saved
editing?.addEventListener("input", () => { entered = true; });
editing?.addEventListener("submit", () => { entered = false; });
addEventListener("beforeunload", (event) => {
  if (entered) event.preventDefault();
});
