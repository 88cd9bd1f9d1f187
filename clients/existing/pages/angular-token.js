import "reflect-metadata";
import "zone.js";
import { NgModule } from "@angular/core";
import { HttpClient, HttpClientModule } from "@angular/common/http";
import { BrowserModule } from "@angular/platform-browser";
import { platformBrowserDynamic } from "@angular/platform-browser-dynamic";
import { AngularTokenModule, AngularTokenService } from "angular-token";

class App {
  ngDoBootstrap() {}
}
NgModule({ imports: [BrowserModule, HttpClientModule, AngularTokenModule.forRoot({ apiBase: window.api })] })(App);

const { injector } = await platformBrowserDynamic().bootstrapModule(App);
const auth = injector.get(AngularTokenService);
const http = injector.get(HttpClient);

window.client = {
  // It validates only when it is told to, as its documentation does.
  ready: auth.userSignedIn() ? auth.validateToken().toPromise().then(({ data }) => data.email, () => null) : Promise.resolve(null),
  signUp: async ({ email: login, password }) => {
    const body = await auth.registerAccount({ login, password, passwordConfirmation: password }).toPromise();
    return body.data.email;
  },
  signIn: async ({ email: login, password }) => {
    await auth.signIn({ login, password }).toPromise();
    return auth.currentUserData.email;
  },
  validate: async () => (await auth.validateToken().toPromise()).data.email,
  get: (path) => http.get(window.api + path).toPromise().then(() => true, () => false),
  signOut: () => auth.signOut().toPromise(),
  token: () => localStorage.getItem("accessToken"),
};
